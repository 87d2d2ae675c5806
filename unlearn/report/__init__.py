"""The outcome as a document, and every form in which it is shown."""
