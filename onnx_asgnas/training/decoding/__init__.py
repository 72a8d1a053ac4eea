"""Image files to arrays, in processes of their own.

This package must stay light, since every worker process imports it: no torch, no onnx, only Pillow and numpy.
"""
