/* QuickAppend: the one call that `Queue.put` is made of. What it promises is said in storage/quick_append.py, which has
 * the same in Python. */
#include "quick.h"
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    Turn turn;
    PyObject *file, *bell;
    /* Slots of the file. */
    PyObject **fd, **size;
    long long limit;
    Py_ssize_t longest;
    Py_buffer page;
    vectorcallfunc call;
} Quick;

/* Write under the turn. 1: all of it stands; 0: nothing does; -1: an exception. */
static int
write_row(Quick *self, PyObject *row)
{
    Py_ssize_t length = PyBytes_GET_SIZE(row), written;
    long long size = read_slot(self->size), fd = read_slot(self->fd);
    if (fd < 0 || size < 0 || length > self->longest || size + length >= self->limit)
        return PyErr_Occurred() ? -1 : 0;
    Py_BEGIN_ALLOW_THREADS
    written = write((int)fd, PyBytes_AS_STRING(row), (size_t)length);
    Py_END_ALLOW_THREADS
    if (written < 0)
        return 0; /* Python tries again, and says what is wrong. */
    if (written < length) {
        PyObject *done = PyObject_CallMethod(self->file, "complete", "On", row, written);
        Py_XDECREF(done);
        return done == NULL ? -1 : 1;
    }
    return write_slot(self->size, size + written) < 0 ? -1 : 1;
}

static PyObject *
quick_call(PyObject *callable, PyObject *const *args, size_t flags, PyObject *keywords)
{
    Quick *self = (Quick *)callable;
    int stands;
    if (PyVectorcall_NARGS(flags) != 1 || keywords != NULL || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a QuickAppend takes one row of bytes");
        return NULL;
    }
    if (!take_turn(&self->turn))
        Py_RETURN_FALSE;
    stands = write_row(self, args[0]);
    if (stands < 0) {
        give_turn_failing(&self->turn);
        return NULL;
    }
    if (give_turn(&self->turn) < 0)
        return NULL;
    if (stands && ((volatile char *)self->page.buf)[0]) {
        PyObject *rung = PyObject_CallMethod(self->bell, "ring", NULL);
        if (rung == NULL)
            return NULL;
        Py_DECREF(rung);
    }
    return PyBool_FromLong(stands);
}

static PyObject *
quick_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    Quick *self = (Quick *)type->tp_alloc(type, 0);
    PyObject *turn, *file, *bell, *page;
    int held;
    if (self == NULL)
        return NULL;
    self->call = quick_call;
    if (!PyArg_ParseTuple(args, "OOOLn", &turn, &file, &bell, &self->limit, &self->longest))
        goto fail;
    self->file = Py_NewRef(file);
    self->bell = Py_NewRef(bell);
    if (turn_init(&self->turn, turn) < 0 || (self->fd = find_slot(file, "fd")) == NULL ||
        (self->size = find_slot(file, "size")) == NULL)
        goto fail;
    /* Held from here on: a page that is exported is not unmapped. */
    if ((page = PyObject_GetAttrString(bell, "page")) == NULL)
        goto fail;
    held = PyObject_GetBuffer(page, &self->page, PyBUF_SIMPLE);
    Py_DECREF(page);
    if (held < 0)
        goto fail;
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

static int
quick_traverse(Quick *self, visitproc visit, void *arg)
{
    Py_VISIT(self->turn.object);
    Py_VISIT(self->file);
    Py_VISIT(self->bell);
    Py_VISIT(self->page.obj);
    return 0;
}

static int
quick_clear(Quick *self)
{
    Py_CLEAR(self->turn.object);
    Py_CLEAR(self->file);
    Py_CLEAR(self->bell);
    PyBuffer_Release(&self->page);
    return 0;
}

static void
quick_dealloc(Quick *self)
{
    PyObject_GC_UnTrack(self);
    quick_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyTypeObject QuickAppend_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pistributer.storage._quick.QuickAppend",
    .tp_basicsize = sizeof(Quick),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Quick, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = quick_new,
    .tp_traverse = (traverseproc)quick_traverse,
    .tp_clear = (inquiry)quick_clear,
    .tp_dealloc = (destructor)quick_dealloc,
};
