"""What every step stands on: object stores, logs and progress, MLflow tracking, configuration.

No step's logic lives here, and nothing here imports torch or kfp.
"""
