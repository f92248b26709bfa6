"""One PPO step, ours against `trl==1.9.2`'s PPOTrainer, on one thread; `python -m benchmarks.ppo_step --help`.

`settings.py` says what is compared, `ours.py` and `trl_side.py` are the two sides, `__main__.py` interleaves them.
"""
