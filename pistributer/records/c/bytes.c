#include "bytes.h"

/* Immutable. What a view does itself copies nothing; every other method of `bytes` is that of a copy. */
typedef struct {
    PyObject_HEAD
    PyObject *owner; /* a memoryview or bytes, so the memory neither moves nor goes away */
    const char *start;
    Py_ssize_t size;
} Bytes;

PyObject *Bytes_view(PyObject *owner, const char *start, Py_ssize_t size) {
    Bytes *self = PyObject_New(Bytes, &Bytes_Type);
    if (self == NULL) return NULL;
    self->owner = Py_NewRef(owner);
    self->start = start;
    self->size = size;
    return (PyObject *)self;
}

Py_ssize_t Bytes_size(PyObject *object) { return ((Bytes *)object)->size; }

static PyObject *copy(PyObject *object) {
    const Bytes *self = (Bytes *)object;
    return PyBytes_FromStringAndSize(self->start, self->size);
}

static PyObject *new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Py_buffer source;
    static char *names[] = {"source", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*:Bytes", names, &source)) return NULL;
    PyObject *owner = PyBytes_FromStringAndSize(source.buf, source.len);
    PyBuffer_Release(&source);
    if (owner == NULL) return NULL;
    PyObject *self = Bytes_view(owner, PyBytes_AS_STRING(owner), PyBytes_GET_SIZE(owner));
    Py_DECREF(owner);
    return self;
}

static void dealloc(PyObject *object) {
    Py_DECREF(((Bytes *)object)->owner);
    PyObject_Free(object);
}

static int get_buffer(PyObject *object, Py_buffer *view, int flags) {
    const Bytes *self = (Bytes *)object;
    return PyBuffer_FillInfo(view, object, (void *)self->start, self->size, /* readonly */ 1, flags);
}

static PyObject *item(PyObject *object, Py_ssize_t index) {
    const Bytes *self = (Bytes *)object;
    if (index < 0 || index >= self->size) {
        PyErr_SetString(PyExc_IndexError, "index out of range");
        return NULL;
    }
    return PyLong_FromLong((unsigned char)self->start[index]);
}

static PyObject *subscript(PyObject *object, PyObject *key) {
    const Bytes *self = (Bytes *)object;
    Py_ssize_t start, stop, step;
    if (PyIndex_Check(key)) {
        const Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
        if (index == -1 && PyErr_Occurred()) return NULL;
        return item(object, index < 0 ? index + self->size : index);
    }
    if (PySlice_Check(key)) {
        if (PySlice_Unpack(key, &start, &stop, &step) < 0) return NULL;
        const Py_ssize_t size = PySlice_AdjustIndices(self->size, &start, &stop, step);
        if (step == 1) return Bytes_view(self->owner, self->start + start, size);
    }
    PyObject *bytes = copy(object); /* every other step, and the error for what is no index at all */
    PyObject *result = bytes ? PyObject_GetItem(bytes, key) : NULL;
    Py_XDECREF(bytes);
    return result;
}

static int contains(PyObject *object, PyObject *value) {
    PyObject *bytes = copy(object);
    const int found = bytes ? PySequence_Contains(bytes, value) : -1;
    Py_XDECREF(bytes);
    return found;
}

static PyObject *concat(PyObject *left, PyObject *right) {
    PyObject *bytes = copy(left);
    PyObject *result = bytes ? PySequence_Concat(bytes, right) : NULL;
    Py_XDECREF(bytes);
    return result;
}

static PyObject *compare(PyObject *object, PyObject *other, int operation) {
    const Bytes *self = (Bytes *)object;
    Py_buffer view;
    if (!PyObject_CheckBuffer(other)) Py_RETURN_NOTIMPLEMENTED;
    if (PyObject_GetBuffer(other, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear(); /* a memoryview that is not contiguous equals nothing of ours */
        Py_RETURN_NOTIMPLEMENTED;
    }
    const Py_ssize_t common = self->size < view.len ? self->size : view.len;
    int order = 1;
    if ((operation == Py_EQ || operation == Py_NE) && self->size != view.len) {
        order = 1; /* not equal, whatever the bytes are */
    } else {
        order = memcmp(self->start, view.buf, (size_t)common);
        if (order == 0) order = (self->size > view.len) - (self->size < view.len);
    }
    PyBuffer_Release(&view);
    Py_RETURN_RICHCOMPARE(order, 0, operation);
}

/* That of equal bytes, so that either finds the other in a dict. */
static Py_hash_t hash(PyObject *object) {
    PyObject *bytes = copy(object);
    const Py_hash_t result = bytes ? PyObject_Hash(bytes) : -1;
    Py_XDECREF(bytes);
    return result;
}

static PyObject *repr(PyObject *object) {
    PyObject *bytes = copy(object);
    PyObject *result = bytes ? PyUnicode_FromFormat("Bytes(%R)", bytes) : NULL;
    Py_XDECREF(bytes);
    return result;
}

/* `record.upper()`, `record.decode()`, …: the method of a copy. */
static PyObject *get_attribute(PyObject *object, PyObject *name) {
    PyObject *found = PyObject_GenericGetAttr(object, name);
    if (found != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) return found;
    if (PyUnicode_GET_LENGTH(name) > 0 && PyUnicode_READ_CHAR(name, 0) == '_') return NULL;
    PyErr_Clear();
    PyObject *bytes = copy(object);
    found = bytes ? PyObject_GetAttr(bytes, name) : NULL;
    Py_XDECREF(bytes);
    return found;
}

static PyObject *to_bytes(PyObject *object, PyObject *unused) { return copy(object); }

static PyObject *reduce(PyObject *object, PyObject *unused) {
    return Py_BuildValue("O(N)", (PyObject *)Py_TYPE(object), copy(object));
}

/* What `dir` and editors complete: everything that `bytes` has. */
static PyObject *dir(PyObject *object, PyObject *unused) {
    PyObject *bytes = copy(object);
    PyObject *names = bytes ? PyObject_Dir(bytes) : NULL;
    PyObject *own = names ? PyUnicode_FromString("to_bytes") : NULL;
    if (own == NULL || PyList_Append(names, own) < 0) Py_CLEAR(names);
    Py_XDECREF(own);
    Py_XDECREF(bytes);
    return names;
}

static PyMethodDef methods[] = {
    {"to_bytes", to_bytes, METH_NOARGS, "A copy, as `bytes`, that keeps nothing else alive."},
    {"__bytes__", to_bytes, METH_NOARGS, NULL},
    {"__reduce__", reduce, METH_NOARGS, NULL},
    {"__dir__", dir, METH_NOARGS, NULL},
    {NULL},
};

static PyBufferProcs as_buffer = {.bf_getbuffer = get_buffer};
static PyMappingMethods as_mapping = {.mp_length = Bytes_size, .mp_subscript = subscript};
static PySequenceMethods as_sequence = {
    .sq_length = Bytes_size, .sq_item = item, .sq_contains = contains, .sq_concat = concat};

PyTypeObject Bytes_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pistributer.records.Bytes",
    .tp_doc = "Bytes(source)\n--\n\n"
              "A record: bytes inside the buffer that its chunk was read into, without a copy.\n\n"
              "It compares, hashes, slices (to views again) and reads as `bytes` does, offers the buffer protocol and\n"
              "every method of `bytes`. It keeps its whole chunk in memory: `to_bytes()` is for records that stay.",
    .tp_basicsize = sizeof(Bytes),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = new,
    .tp_dealloc = dealloc,
    .tp_as_buffer = &as_buffer,
    .tp_as_mapping = &as_mapping,
    .tp_as_sequence = &as_sequence,
    .tp_richcompare = compare,
    .tp_hash = hash,
    .tp_repr = repr,
    .tp_getattro = get_attribute,
    .tp_methods = methods,
};
