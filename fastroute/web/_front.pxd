"""The compiled face of the front."""

from fastroute._call cimport Call
from fastroute._sweep cimport Sweep
from fastroute.web._door cimport DoorCore

cdef class Front:
    cdef readonly object gateway, metrics
    cdef readonly set open
    cdef readonly long long limit
    cdef readonly DoorCore doorman
    cdef readonly bint guards, caches
    cdef readonly Sweep bodiless
    cdef object loop

cpdef list head(Call call, entry)
cpdef list accounts(Call call)
