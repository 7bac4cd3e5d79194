"""What people look at: graphs as SVG, and pages of one HTML file.

picture    which nodes stand in which box, and what leads from box to box
origins    which rule made a node of the result, and which one took a node of the source
layout     where boxes and arrows are: Graphviz decides
pages      the templates in ``templates/``, by jinja2
"""
