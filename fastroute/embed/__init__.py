"""The router inside a program: a gateway on a loopback port that holds the provider's key and the budget.

`router.LlmRouter` is the face. It runs in a thread of the program, on a loop of its own, because that is the least that can
go wrong: a budget that lives as long as the program needs no process, no file and no journal beside it, and every figure
is read where it is kept. What must outlive the program is the panel's, which is told of each call as it ends.
"""
