"""What a run needs from outside, tried before anything is spent: stores, registry, model, sandbox.

Each file tries one kind of thing and says what to mend, and where. Knows nothing of training or of Kubeflow.
"""
