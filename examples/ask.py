"""Ask a chat model one question, with transformers alone: python examples/ask.py FOLDER QUESTION."""

import sys

from transformers import pipeline
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
folder, question = sys.argv[1:]
ask = pipeline("text-generation", folder)
turns = ask([{"role": "user", "content": question}], max_new_tokens=32, do_sample=False)[0]["generated_text"]
print(turns[-1]["content"])
