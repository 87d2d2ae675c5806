"""The same facts through several methods: points, one document, charts."""
