// What a kernel's parameters are, and calling it with them, as a GPU does (see shim.h).
#pragma once

namespace shim {

// The name that NumPy has for a type, and "?" for all others, which nothing is checked of.
template <class T> struct Kind { static constexpr const char *name = "?"; };
#define SHIM_KIND(type, code) \
    template <> struct Kind<type> { static constexpr const char *name = code; };
SHIM_KIND(bool, "b1")
SHIM_KIND(char, "i1")
SHIM_KIND(signed char, "i1")
SHIM_KIND(unsigned char, "u1")
SHIM_KIND(short, "i2")
SHIM_KIND(unsigned short, "u2")
SHIM_KIND(int, "i4")
SHIM_KIND(unsigned, "u4")
SHIM_KIND(long, "i8")
SHIM_KIND(unsigned long, "u8")
SHIM_KIND(long long, "i8")
SHIM_KIND(unsigned long long, "u8")
SHIM_KIND(float, "f4")
SHIM_KIND(double, "f8")

// What a parameter is: v, a value; p, a pointer; c, a pointer to what is not written.
template <class T> struct Parameter { static constexpr char mark = 'v'; typedef T type; };
template <class T> struct Parameter<T *> { static constexpr char mark = 'p'; typedef T type; };
template <class T> struct Parameter<const T *> { static constexpr char mark = 'c'; typedef T type; };

template <class T>
void describe(std::vector<char> &text) {
    const char *name = Kind<typename Parameter<T>::type>::name;
    text.push_back(Parameter<T>::mark);
    text.insert(text.end(), name, name + strlen(name));
    text.push_back(',');
}

// The parameters of a kernel, each followed by a comma.
template <class... A>
const char *signature(void (*)(A...)) {
    static std::vector<char> text;
    text.clear();
    (describe<A>(text), ...);
    text.push_back(0);
    return text.data();
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*(A *)arguments[I]...);
}
template <class... A>
void call(void (*kernel)(A...), void **arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>());
}

}  // namespace shim
