// What a box counts as: a set of flags, of which it may have both.
#pragma once

typedef unsigned long long word_t;
typedef signed char flags_t;
constexpr int FOREGROUND = 1, BACKGROUND = 2;
