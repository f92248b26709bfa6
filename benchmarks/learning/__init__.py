"""What FGO and CCCS are worth on the shipped problems: five ways of training from the same roll-outs, over several seeds.

Trainings run through the public configs alone. What a run is lies in `settings.py`; nothing here knows how PPO works.
"""
