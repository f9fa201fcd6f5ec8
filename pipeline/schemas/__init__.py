"""The Arrow schema of every artifact, one module per stage; each field carries its meaning as metadata."""
