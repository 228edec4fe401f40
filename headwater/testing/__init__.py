"""Fuzzes a repository's own views: every path must give the number that a slow loop gives.

For a test in one line, in a user's own suite (docs/testing.md)::

    from headwater.testing import assert_views_agree

    def test_views_agree():
        assert_views_agree("features")
"""

from headwater.testing.assertion import assert_views_agree

__all__ = ["assert_views_agree"]
