/* pistributer.records.Bytes: bytes that lie inside a larger buffer, which it keeps alive. */
#ifndef PISTRIBUTER_BYTES_H
#define PISTRIBUTER_BYTES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject Bytes_Type;

/* A view of `size` bytes at `start`, inside the memory of `owner`. */
PyObject *Bytes_view(PyObject *owner, const char *start, Py_ssize_t size);

/* How many bytes the view `object` has. */
Py_ssize_t Bytes_size(PyObject *object);

#endif
