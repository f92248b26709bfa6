"""What FGO and CCCS are worth on the shipped problems: five trainings, equal numbers of roll-outs, several seeds.

Trainings run through the public configs alone. What a run is lies in `settings.py`; nothing here knows how PPO works.
"""
