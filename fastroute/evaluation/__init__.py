"""What a policy would be worth: prompts asked twice and compared, and requests of the past decided anew.

`prompts`, `answers` and `running` ask; `report`, `bootstrap` and `picture` say what came of it; `past` and `simulation`
ask nobody.
"""
