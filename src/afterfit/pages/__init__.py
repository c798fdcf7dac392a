"""What a person looks at: pictures and HTML pages without scripts."""
