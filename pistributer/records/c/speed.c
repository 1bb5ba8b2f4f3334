/* The hot loops of record files. What each function does is said in ../plain.py, which does the same in Python. */
#include "bytes.h"
#include "highwayhash.h"

enum { BLOCK = 65536, BLOCK_HEADER = 24, MAX_VARINT = 10 };

/* Below this many bytes, giving the GIL away costs more than the hash. */
enum { RELEASE_ABOVE = 16384 };

/* "Riegeli/", "records\n", twice. */
static const uint64_t KEY[4] = {0x2f696c6567656952, 0x0a7364726f636572, 0x2f696c6567656952, 0x0a7364726f636572};

static void put64(unsigned char *to, uint64_t value) {
    for (int i = 0; i < 8; i++) to[i] = (unsigned char)(value >> 8 * i);
}

static PyObject *hash64(PyObject *module, PyObject *args) {
    Py_buffer data;
    uint64_t key[4] = {KEY[0], KEY[1], KEY[2], KEY[3]};
    uint64_t result;
    unsigned long long given[4];
    if (PyTuple_GET_SIZE(args) > 1) {
        if (!PyArg_ParseTuple(args, "y*(KKKK):hash64", &data, given, given + 1, given + 2, given + 3)) return NULL;
        for (int i = 0; i < 4; i++) key[i] = given[i];
    } else if (!PyArg_ParseTuple(args, "y*:hash64", &data)) {
        return NULL;
    }
    if (data.len > RELEASE_ABOVE) {
        Py_BEGIN_ALLOW_THREADS;
        result = highwayhash64(key, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS;
    } else {
        result = highwayhash64(key, data.buf, (size_t)data.len);
    }
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLongLong(result);
}

static PyObject *block_headers(PyObject *module, PyObject *args) {
    long long begin, end;
    if (!PyArg_ParseTuple(args, "LL:block_headers", &begin, &end)) return NULL;
    const long long first = (begin + BLOCK - 1) / BLOCK * BLOCK;
    const Py_ssize_t count = first < end ? (Py_ssize_t)((end - first + BLOCK - 1) / BLOCK) : 0;
    PyObject *headers = PyBytes_FromStringAndSize(NULL, count * BLOCK_HEADER);
    if (headers == NULL) return NULL;
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(headers);
    for (long long at = first; at < end; at += BLOCK, to += BLOCK_HEADER) {
        put64(to + 8, (uint64_t)(at - begin));
        put64(to + 16, (uint64_t)(end - at));
        put64(to, highwayhash64(KEY, to + 8, 16));
    }
    return headers;
}

/* -1 for anything but bytes and Bytes. No code of Python's runs, which could change the list that is walked. */
static Py_ssize_t size_of(PyObject *record) {
    if (PyBytes_Check(record)) return PyBytes_GET_SIZE(record);
    if (Py_IS_TYPE(record, &Bytes_Type)) return Bytes_size(record);
    PyErr_Format(PyExc_TypeError, "a record is bytes or Bytes, not %.100s", Py_TYPE(record)->tp_name);
    return -1;
}

static PyObject *pack_sizes(PyObject *module, PyObject *records) {
    if (!PyList_CheckExact(records)) {
        PyErr_SetString(PyExc_TypeError, "pack_sizes takes a list");
        return NULL;
    }
    const Py_ssize_t count = PyList_GET_SIZE(records);
    unsigned char *packed = PyMem_Malloc((size_t)(count ? count : 1) * MAX_VARINT), *to = packed;
    if (packed == NULL) return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t size = size_of(PyList_GET_ITEM(records, i));
        if (size < 0) {
            PyMem_Free(packed);
            return NULL;
        }
        for (; size >= 0x80; size >>= 7) *to++ = (unsigned char)(size | 0x80);
        *to++ = (unsigned char)size;
    }
    PyObject *result = PyBytes_FromStringAndSize((char *)packed, to - packed);
    PyMem_Free(packed);
    return result;
}

/* The next varint of `*from`, at most 2**63 - 1; -1 if it is cut off or longer than ten bytes. */
static int64_t take_varint(const unsigned char **from, const unsigned char *end) {
    uint64_t value = 0;
    for (int shift = 0; shift < 7 * MAX_VARINT && *from < end; shift += 7) {
        const unsigned char byte = *(*from)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return value >> 63 || (shift == 63 && byte) ? -1 : (int64_t)value;
    }
    return -1;
}

/* Fill `list` with views of `owner`; what is wrong, or NULL. */
static const char *fill(PyObject *list, PyObject *owner, const Py_buffer *sizes, const Py_buffer *values) {
    const unsigned char *from = sizes->buf, *end = from + sizes->len;
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        const int64_t size = take_varint(&from, end);
        if (size < 0) return "a record's size can not be read";
        if (size > values->len - at) return "the records are longer than the chunk";
        PyObject *record = Bytes_view(owner, (char *)values->buf + at, (Py_ssize_t)size);
        if (record == NULL) return "";
        PyList_SET_ITEM(list, i, record);
        at += (Py_ssize_t)size;
    }
    if (from != end) return "there are more sizes than records";
    return at == values->len ? NULL : "the records are shorter than the chunk";
}

static PyObject *split(PyObject *module, PyObject *args) {
    Py_buffer sizes;
    PyObject *source, *list = NULL;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "y*On:split", &sizes, &source, &count)) return NULL;
    PyObject *owner = PyMemoryView_FromObject(source); /* one export for all records of the chunk */
    if (owner == NULL) goto done;
    const char *wrong = "there are more records than sizes";
    if (!PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(owner), 'C')) {
        wrong = "the records are not in one piece";
    } else if (0 <= count && count <= sizes.len) { /* before a hostile count asks for the memory */
        list = PyList_New(count);
        wrong = list ? fill(list, owner, &sizes, PyMemoryView_GET_BUFFER(owner)) : "";
    }
    if (wrong != NULL) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, wrong);
        Py_CLEAR(list);
    }
    Py_DECREF(owner);
done:
    PyBuffer_Release(&sizes);
    return list;
}

static PyObject *allocate(PyObject *module, PyObject *size) {
    const Py_ssize_t count = PyNumber_AsSsize_t(size, PyExc_OverflowError);
    if (count == -1 && PyErr_Occurred()) return NULL;
    return PyByteArray_FromStringAndSize(NULL, count);
}

static PyMethodDef functions[] = {
    {"hash64", hash64, METH_VARARGS, NULL},
    {"block_headers", block_headers, METH_VARARGS, NULL},
    {"pack_sizes", pack_sizes, METH_O, NULL},
    {"split", split, METH_VARARGS, NULL},
    {"allocate", allocate, METH_O, NULL},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_speed", .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit__speed(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    if (PyModule_AddType(module, &Bytes_Type) < 0 ||
        PyModule_AddStringConstant(module, "kind", highwayhash_kind()) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
