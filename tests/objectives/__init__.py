"""Tests of pipeline/objectives."""
