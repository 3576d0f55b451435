# SPDX-License-Identifier: Apache-2.0
"""The documentation as a web site: ``make site`` gathers the pages of the tree, and Sphinx makes HTML of them."""
