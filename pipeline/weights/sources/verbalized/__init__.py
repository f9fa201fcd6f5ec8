"""Weights that the judge says in words: a prompt for each response, its answer read strictly, its parts placed."""
