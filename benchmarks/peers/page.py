"""docs/pruning.md"""
def write(): pass
