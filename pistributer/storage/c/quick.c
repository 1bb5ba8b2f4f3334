#include "quick.h"
#include <structmember.h>

PyObject **
find_slot(PyObject *object, const char *name)
{
    PyObject *found = PyObject_GetAttrString((PyObject *)Py_TYPE(object), name);
    PyObject **slot = NULL;
    if (found == NULL)
        return NULL;
    if (Py_IS_TYPE(found, &PyMemberDescr_Type) && ((PyMemberDescrObject *)found)->d_member->type == T_OBJECT_EX)
        slot = (PyObject **)((char *)object + ((PyMemberDescrObject *)found)->d_member->offset);
    else
        PyErr_Format(PyExc_TypeError, "%s is no slot of %s", name, Py_TYPE(object)->tp_name);
    Py_DECREF(found);
    return slot;
}

long long
read_slot(PyObject **slot)
{
    return *slot == NULL ? -1 : PyLong_AsLongLong(*slot);
}

int
write_slot(PyObject **slot, long long value)
{
    PyObject *made = PyLong_FromLongLong(value);
    if (made == NULL)
        return -1;
    Py_XSETREF(*slot, made);
    return 0;
}

int
turn_init(Turn *self, PyObject *object)
{
    self->object = Py_NewRef(object);
    self->free = find_slot(object, "free");
    self->waiters = self->free == NULL ? NULL : find_slot(object, "waiters");
    return self->waiters == NULL ? -1 : 0;
}

int
take_turn(Turn *self)
{
    if (self->object == NULL || *self->free == NULL) /* no object: the garbage collector has taken this call apart */
        return 0;
    Py_CLEAR(*self->free);
    return 1;
}

int
give_turn(Turn *self)
{
    Py_XSETREF(*self->free, Py_NewRef(Py_True));
    if (read_slot(self->waiters) != 0) {
        PyObject *done = PyObject_CallMethod(self->object, "wake_waiter", NULL);
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    return 0;
}

void
give_turn_failing(Turn *self)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (give_turn(self) < 0)
        PyErr_WriteUnraisable(self->object);
    PyErr_Restore(type, value, trace);
}

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_quick",
    .m_doc = "See storage/quick_append.py and storage/quick_channel.py.",
    .m_size = -1,
};

PyMODINIT_FUNC
PyInit__quick(void)
{
    PyTypeObject *types[] = {&QuickAppend_Type, &QuickSharedAppend_Type, &QuickTake_Type};
    PyObject *made = PyModule_Create(&module);
    for (size_t i = 0; made != NULL && i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(made, types[i]) < 0)
            Py_CLEAR(made);
    return made;
}
