#pragma once

// The functions that this library exports, as the loading code declares them: all else is hidden.
#pragma GCC visibility push(default)
#include "storage/sfcs/cloudfs.h"
#pragma GCC visibility pop
