"""One query row of attention per layer, and the judge's verdict."""
