"""Training: lowering to a differentiable graph, engines, the torch bridge, H2SPG, data, and the loop."""
