"""Prompt, token bookkeeping, policy, critic, generation and log-probs: what both trainings and the evaluation share.

No training loop and no curriculum lives here. Importing the package itself does not import torch.
"""
