"""The page that shows a run: tables, figures, and responses with their tokens shaded by weight. It opens offline."""
