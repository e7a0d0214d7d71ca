/* $title; written by squeezenet_paddle. See squeezenet.h. */

#include "squeezenet.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

$defines
$declared
