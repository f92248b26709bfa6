"""What every step stands on: object stores, logs and progress, MLflow tracking, configuration, DeepSpeed.

No step's logic lives here. `engine` imports torch, `ranks` and `launch` only where there are several ranks; nothing
imports kfp.
"""
