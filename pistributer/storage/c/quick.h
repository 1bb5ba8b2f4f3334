/* What the quick calls share: the slots of Python objects, read and written where they lie, and the turn between threads.
 *
 * All state stays in those slots, so there is nothing that could differ from what the Python code sees. Whatever is not the
 * plain case is left to that code: a short write, an error, a signal. */
#ifndef PISTRIBUTER_QUICK_H
#define PISTRIBUTER_QUICK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>

extern PyTypeObject QuickAppend_Type, QuickSharedAppend_Type, QuickTake_Type;

/* Where `object` keeps its slot `name`; NULL with TypeError if it is no slot. */
PyObject **find_slot(PyObject *object, const char *name);

/* The integer in a slot; -1 if the slot is empty. */
long long read_slot(PyObject **slot);

/* Put `value` into a slot. -1 with an exception if there is no memory for it. */
int write_slot(PyObject **slot, long long value);

/* storage/turns.py: the object, and its slots. */
typedef struct {
    PyObject *object, **free, **waiters;
} Turn;

/* Hold `object` as a turn. -1 with an exception if it is none. */
int turn_init(Turn *self, PyObject *object);

/* Whether it was nobody's turn, and now is ours. */
int take_turn(Turn *self);

/* Give it away again, as Turn.give_turn does it. -1 with an exception. */
int give_turn(Turn *self);

/* The same while an exception is on its way. */
void give_turn_failing(Turn *self);

#endif
