"""Raw scores of trained tokens, by sources that do not read a judge's attention."""
