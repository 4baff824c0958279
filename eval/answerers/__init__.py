"""Other people's models as evaluators ask them: questions with images in, words out."""
