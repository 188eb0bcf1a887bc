"""Studies over models of any family: ablations, speed, costs."""
