"""The compiled face of the heads, for the front that reads and writes them on every request."""

cpdef dict look(headers)
cpdef long long length(dict found) except? -9
cpdef bytes credential(dict found, bytes query)
cpdef whole(message, Py_ssize_t length)
cpdef list names(str request, str decision, list upstream_ids)
cpdef list accounts(double elapsed_s, cost_picodollars, usage)
cpdef tuple content(bytes kind, bytes body)
