"""The compiled face of what an attempt may cost and did, for the relay."""

cpdef object bound(price, input_bound, output_cap, max_output, choices=*)
cpdef object exact(price, usage)
cpdef object priced(str basis, price, usage)
