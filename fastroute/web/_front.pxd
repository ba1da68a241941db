"""The compiled face of the front."""

from fastroute._call cimport Call
from fastroute._gateway cimport Core
from fastroute._sweep cimport Sweep
from fastroute.metrics._slots cimport Gauge, Groups
from fastroute.web._door cimport DoorCore

cdef class Front:
    cdef readonly Core gateway
    cdef readonly Groups metrics
    cdef Gauge active
    cdef readonly set open
    cdef readonly long long limit
    cdef readonly DoorCore doorman
    cdef readonly bint guards, caches
    cdef readonly Sweep bodiless
    cdef object loop
    cdef public dict posts

cdef class StreamCore:
    cdef readonly Call call
    cdef readonly object encoder
    cdef object calls
    cdef public object beating  # the task of a beat
    cdef readonly Sweep beats
    cdef readonly bint comments
    cdef public bint begun

cdef class Gate:
    cdef public Front data

cpdef list head(Call call, entry)
cpdef list accounts(Call call)
