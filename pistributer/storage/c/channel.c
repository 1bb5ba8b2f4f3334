/* The calls that the classic `put` and `next` are made of. What they promise is said in storage/quick_channel.py; the
 * system calls are those of SharedAppendFile.append and ChannelReader.take, in the same order. */
#include "quick.h"
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* -- put */

typedef struct {
    PyObject_HEAD
    Turn turn; /* the file itself */
    PyObject **fd, **end, **last, **looked;
    double pause, look_every;
    vectorcallfunc call;
} SharedAppend;

/* Seconds on the clock of time.monotonic(). */
static double
monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double
read_moment(PyObject **slot)
{
    return *slot == NULL ? 0 : PyFloat_AsDouble(*slot);
}

/* The size of the locked file; -1 if there is none to be had, or the file has lost its name, if that is to be looked at. */
static off_t
size_of(int fd, int look_at_name)
{
    struct stat found;
    if (!look_at_name)
        return lseek(fd, 0, SEEK_END);
    return fstat(fd, &found) == 0 && found.st_nlink ? found.st_size : -1;
}

/* Whether the last of `size` bytes is the end of an ordinary row: another writer was here, and that is all. */
static int
ends_a_row(int fd, off_t size)
{
    char last[2];
    return size >= 2 && pread(fd, last, 2, size - 2) == 2 && last[1] == '\n' && last[0] != '\n';
}

/* Append under the file's lock, which is kept after a short write. The bytes written, at `*end`; -1 if it is not the plain
 * case. */
static Py_ssize_t
append_locked(int fd, PyObject *rows, int look_at_name, long long *end)
{
    Py_ssize_t length = PyBytes_GET_SIZE(rows), written = -1;
    off_t size;
    if (flock(fd, LOCK_EX) < 0)
        return -1;
    size = size_of(fd, look_at_name);
    if (size >= 0 && (size == *end || ends_a_row(fd, size))) {
        written = write(fd, PyBytes_AS_STRING(rows), (size_t)length);
        *end = size;
    }
    if (written < 0 || written == length)
        flock(fd, LOCK_UN);
    return written;
}

/* Write under the turn. 1: all of it stands; 0: nothing does; -1: an exception. */
static int
append_rows(SharedAppend *self, PyObject *rows)
{
    long long fd = read_slot(self->fd), end = read_slot(self->end);
    double now = monotonic(), last = read_moment(self->last), looked = read_moment(self->looked);
    int paused = now - last > self->pause;
    Py_ssize_t written;
    PyObject *ended;
    if (PyErr_Occurred())
        return -1;
    if (fd < 0 || (paused && now - looked > self->look_every))
        return 0;
    Py_BEGIN_ALLOW_THREADS
    written = append_locked((int)fd, rows, paused, &end);
    now = monotonic();
    Py_END_ALLOW_THREADS
    if (written < 0)
        return 0; /* Python finds out why. */
    if (written < PyBytes_GET_SIZE(rows)) {
        PyObject *done = PyObject_CallMethod(self->turn.object, "complete", "OnL", rows, written, end);
        Py_XDECREF(done);
        return done == NULL ? -1 : 1;
    }
    if (write_slot(self->end, end + written) < 0 || (ended = PyFloat_FromDouble(now)) == NULL)
        return -1;
    Py_XSETREF(*self->last, ended);
    return 1;
}

static PyObject *
shared_append_call(PyObject *callable, PyObject *const *args, size_t flags, PyObject *keywords)
{
    SharedAppend *self = (SharedAppend *)callable;
    int stands;
    if (PyVectorcall_NARGS(flags) != 1 || keywords != NULL || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a QuickSharedAppend takes bytes");
        return NULL;
    }
    if (!take_turn(&self->turn))
        Py_RETURN_FALSE;
    stands = append_rows(self, args[0]);
    if (stands < 0) {
        give_turn_failing(&self->turn);
        return NULL;
    }
    return give_turn(&self->turn) < 0 ? NULL : PyBool_FromLong(stands);
}

static PyObject *
shared_append_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    SharedAppend *self = (SharedAppend *)type->tp_alloc(type, 0);
    PyObject *file;
    if (self == NULL)
        return NULL;
    self->call = shared_append_call;
    if (!PyArg_ParseTuple(args, "Odd", &file, &self->pause, &self->look_every) || turn_init(&self->turn, file) < 0 ||
        (self->fd = find_slot(file, "_fd")) == NULL || (self->end = find_slot(file, "_end")) == NULL ||
        (self->last = find_slot(file, "_last")) == NULL || (self->looked = find_slot(file, "_looked")) == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
shared_append_traverse(SharedAppend *self, visitproc visit, void *arg)
{
    Py_VISIT(self->turn.object);
    return 0;
}

static int
shared_append_clear(SharedAppend *self)
{
    Py_CLEAR(self->turn.object);
    return 0;
}

static void
shared_append_dealloc(SharedAppend *self)
{
    PyObject_GC_UnTrack(self);
    shared_append_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyTypeObject QuickSharedAppend_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pistributer.storage._quick.QuickSharedAppend",
    .tp_basicsize = sizeof(SharedAppend),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(SharedAppend, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = shared_append_new,
    .tp_traverse = (traverseproc)shared_append_traverse,
    .tp_clear = (inquiry)shared_append_clear,
    .tp_dealloc = (destructor)shared_append_dealloc,
};

/* -- next */

/* storage/shared_cursor.py has the same line. */
#define LINE "{\"index\": %-14lld, \"offset\": %-14lld, \"counted\": %-14lld, \"batch\": %-14lld}\n"
/* Four numbers of any size fit. */
#define LONGEST 160

typedef struct {
    PyObject_HEAD
    Turn turn; /* the cursor itself */
    PyObject *buffer;
    /* Slots of the cursor. */
    PyObject **fd, **line, **batch, **index, **offset;
    /* Slots of the buffer. */
    PyObject **rows, **start, **position, **odd;
    vectorcallfunc call;
} Take;

/* Move the cursor on disk from `old` to `new`, both of `width` bytes. 0 if it is not at `old`, or could not be moved. */
static int
move_cursor(int fd, const char *old, const char *new, size_t width)
{
    char seen[LONGEST];
    int moved;
    if (flock(fd, LOCK_EX) < 0)
        return 0;
    moved = pread(fd, seen, width, 0) == (ssize_t)width && memcmp(seen, old, width) == 0 &&
            pwrite(fd, new, width, 0) == (ssize_t)width;
    flock(fd, LOCK_UN);
    return moved;
}

/* Take the next row under the turn. 1: it is in `row`; 0: nothing was done; -1: an exception. */
static int
take_row(Take *self, PyObject **row)
{
    PyObject *rows = *self->rows, *line = *self->line, *next;
    long long fd = read_slot(self->fd), start = read_slot(self->start), position = read_slot(self->position);
    long long index = read_slot(self->index), batch = read_slot(self->batch), behind;
    const char *from, *newline;
    char written[LONGEST];
    int width, moved;
    if (PyErr_Occurred())
        return -1;
    if (fd < 0 || start < 0 || position < 0 || *self->odd != Py_False || rows == NULL || !PyBytes_CheckExact(rows) ||
        line == NULL || !PyBytes_CheckExact(line) || position >= PyBytes_GET_SIZE(rows))
        return 0;
    from = PyBytes_AS_STRING(rows) + position;
    newline = memchr(from, '\n', (size_t)(PyBytes_GET_SIZE(rows) - position));
    if (newline == NULL)
        return 0;
    behind = position + (newline - from) + 1;
    width = snprintf(written, sizeof written, LINE, index + 1, start + behind, index + 1, batch);
    if (PyBytes_GET_SIZE(line) != width)
        return 0;
    /* All that memory is needed for comes before the cursor moves: a row that is consumed is handed out. */
    if ((*row = PyUnicode_DecodeUTF8(from, newline - from, "strict")) == NULL)
        return -1;
    if ((next = PyBytes_FromStringAndSize(written, width)) == NULL) {
        Py_CLEAR(*row);
        return -1;
    }
    Py_INCREF(line);
    Py_BEGIN_ALLOW_THREADS
    moved = move_cursor((int)fd, PyBytes_AS_STRING(line), written, (size_t)width);
    Py_END_ALLOW_THREADS
    Py_DECREF(line);
    if (!moved) {
        Py_DECREF(next);
        Py_CLEAR(*row);
        return 0; /* Python finds out why. */
    }
    Py_XSETREF(*self->line, next);
    return write_slot(self->index, index + 1) < 0 || write_slot(self->offset, start + behind) < 0 ||
                   write_slot(self->position, behind) < 0
               ? -1
               : 1;
}

static PyObject *
take_call(PyObject *callable, PyObject *const *args, size_t flags, PyObject *keywords)
{
    Take *self = (Take *)callable;
    PyObject *row = NULL;
    if (PyVectorcall_NARGS(flags) != 0 || keywords != NULL) {
        PyErr_SetString(PyExc_TypeError, "a QuickTake takes no arguments");
        return NULL;
    }
    if (!take_turn(&self->turn))
        Py_RETURN_NONE;
    if (take_row(self, &row) < 0) {
        Py_CLEAR(row);
        give_turn_failing(&self->turn);
        return NULL;
    }
    if (give_turn(&self->turn) < 0) {
        Py_CLEAR(row);
        return NULL;
    }
    return row != NULL ? row : Py_NewRef(Py_None);
}

static PyObject *
take_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    Take *self = (Take *)type->tp_alloc(type, 0);
    PyObject *cursor, *buffer;
    if (self == NULL)
        return NULL;
    self->call = take_call;
    if (!PyArg_ParseTuple(args, "OO", &cursor, &buffer) || turn_init(&self->turn, cursor) < 0 ||
        (self->fd = find_slot(cursor, "_fd")) == NULL || (self->line = find_slot(cursor, "_line")) == NULL ||
        (self->batch = find_slot(cursor, "batch")) == NULL || (self->index = find_slot(cursor, "index")) == NULL ||
        (self->offset = find_slot(cursor, "offset")) == NULL || (self->rows = find_slot(buffer, "rows")) == NULL ||
        (self->start = find_slot(buffer, "start")) == NULL ||
        (self->position = find_slot(buffer, "position")) == NULL || (self->odd = find_slot(buffer, "odd")) == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    self->buffer = Py_NewRef(buffer);
    return (PyObject *)self;
}

static int
take_traverse(Take *self, visitproc visit, void *arg)
{
    Py_VISIT(self->turn.object);
    Py_VISIT(self->buffer);
    return 0;
}

static int
take_clear(Take *self)
{
    Py_CLEAR(self->turn.object);
    Py_CLEAR(self->buffer);
    return 0;
}

static void
take_dealloc(Take *self)
{
    PyObject_GC_UnTrack(self);
    take_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyTypeObject QuickTake_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pistributer.storage._quick.QuickTake",
    .tp_basicsize = sizeof(Take),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Take, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = take_new,
    .tp_traverse = (traverseproc)take_traverse,
    .tp_clear = (inquiry)take_clear,
    .tp_dealloc = (destructor)take_dealloc,
};
