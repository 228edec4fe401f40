"""The marketplace: who offers and who uses features.

The catalog service lives here: pages and a JSON API over the registry and the measured facts. It imports
`headwater` and no other room; it meets the pipelines only through stores and the registry.
"""
