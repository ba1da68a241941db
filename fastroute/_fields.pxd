"""Fields of structs and of classes with slots, read where they lie: by name each costs as much as a call."""

cdef extern from *:
    """
    #include <structmember.h>

    /* Where a field lies, which its descriptor knows; -1 and an error for anything but a plain field. */
    static Py_ssize_t fastroute_offset(PyObject *of, PyObject *name)
    {
        PyObject *found = PyObject_GetAttr(of, name);
        Py_ssize_t offset = -1;
        if (found == NULL) return -1;
        if (Py_TYPE(found) == &PyMemberDescr_Type && ((PyMemberDescrObject *)found)->d_member->type == T_OBJECT_EX)
            offset = ((PyMemberDescrObject *)found)->d_member->offset;
        else
            PyErr_Format(PyExc_TypeError, "%U of %R is no field", name, of);
        Py_DECREF(found);
        return offset;
    }

    static inline PyObject *fastroute_field(PyObject *it, Py_ssize_t offset)
    {
        PyObject *value = *(PyObject **)((char *)it + offset);
        if (value == NULL) {
            PyErr_SetString(PyExc_AttributeError, "a field is not set");
            return NULL;
        }
        Py_INCREF(value);
        return value;
    }
    """
    Py_ssize_t offset_of "fastroute_offset" (object of, object name) except -1
    object at "fastroute_field" (object it, Py_ssize_t offset)


cdef inline int must_be(it, kind) except -1:
    """Fields are read where those of this very class lie: anything else there would be read as what it is not."""
    if type(it) is not kind:
        raise TypeError(f"fields of a {kind.__name__} are read, not of a {type(it).__name__}")
    return 0


cdef inline int lay(Py_ssize_t *offsets, of, tuple names) except -1:
    """Where these fields lie, in the order in which they are named; whoever reads them makes sure of the class."""
    cdef Py_ssize_t place
    for place in range(len(names)):
        offsets[place] = offset_of(of, names[place])
    return 0
