"""What a plugin author needs in Python: the questions and the answers of each world, as plain values.

`pointsman plugin build` connects `src/plugin.py` to its world; nothing here needs a component, so that a plugin is tested like
any other module. A function `configure(config)` in `src/plugin.py` may check the configuration or return something prepared
from it, which the deciding function then gets; what it raises is shown to the operator.
"""
