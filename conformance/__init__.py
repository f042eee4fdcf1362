"""Does BatchNorm mean the same thing in PyTorch, MindSpore and Keras?

This module imports nothing: a worker loads ``conformance.harness`` in environments that hold only NumPy and one
framework.
"""
