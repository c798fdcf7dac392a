"""What a person looks at: pictures, the model card, and HTML pages.

A page does not compute what it shows. It contains no script and loads nothing from elsewhere. Words: docs/glossary.md.
"""
