"""What a person looks at: pictures, cards, and HTML pages.

A page never computes what it shows, has no script in it, and loads nothing from elsewhere. Words: docs/glossary.md.
"""
