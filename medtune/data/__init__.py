"""From a source to three files of questions: the stage prepare."""
