"""Tests of pipeline/train."""
