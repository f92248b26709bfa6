"""What every step stands on: object stores, logs and progress, MLflow tracking, configuration, DeepSpeed.

No step's logic lives here. Only `engine` imports torch, and nothing imports kfp.
"""
