"""How well models do their tasks on labelled data of the published formats: GLUE, SQuAD, CoNLL, folders of images.

Rows come a few at a time (``sources``), a task reads of them what it is asked and what is right (``tasks``), the models answer,
and what is kept of each row is a few numbers, of which the published figures are made (``metrics``).
"""
