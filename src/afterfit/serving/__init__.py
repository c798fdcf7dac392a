"""HTTP over a bundle: endpoints, payloads, micro-batches, metrics, and the prediction log behind the answers.

It knows neither processes nor the registry: `server` starts it and hands it versions. Words: docs/glossary.md.
"""
