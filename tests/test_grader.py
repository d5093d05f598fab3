r"""The grader against a table of verdicts, random strings, and 5,276 labelled GSM8K solutions.

Each case is (response, reference answer, verdict). The wrong ones are the ways in which public graders were fooled:
prefixes ("3/4" for 3), hedges, deleted commas, tolerance, unicode digits, brackets, huge exponents, deep nesting.
"""

import json
import random
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from data.grader import extract, grade, reward

RIGHT, WRONG = True, False

# Whole responses. kind = gsm8k
GSM8K = [
    ("9 * 2 = 18\n#### 18", "18", RIGHT),
    ("#### 18.", "18", RIGHT),
    ("#### 18.0", "18", RIGHT),
    ("#### $18", "18", RIGHT),
    ("#### 18 dollars", "18", RIGHT),
    ("#### 18 eggs per day.", "18", RIGHT),
    ("####18", "18", RIGHT),
    ("#### **18**", "18", RIGHT),
    ("**#### 18**", "18", RIGHT),
    ("#### 1,000", "1000", RIGHT),
    ("#### 1000", "1,000", RIGHT),
    ("#### $2,880,000", "2880000", RIGHT),
    ("#### -5", "-5", RIGHT),
    ("#### \u22125", "-5", RIGHT),
    ("#### 36/2", "18", RIGHT),
    ("#### 0.5", "1/2", RIGHT),
    ("#### x = 18", "18", RIGHT),
    ("#### \\boxed{18}", "18", RIGHT),
    ("#### $\\boxed{18}$.", "18", RIGHT),
    ("She makes \\boxed{18} dollars.", "18", RIGHT),
    ("She makes \\boxed{\\$18} a day.", "18", RIGHT),
    ("#### 18\nThat is all. " + "Thank you. " * 100, "18", RIGHT),
    ("The answer is 18.", "18", RIGHT),
    ("So the final answer is: $18.", "18", RIGHT),
    ("9 * 2 = <<9*2=18>>18\nA: 18", "18", RIGHT),
    ("Answer: 18 dollars", "18", RIGHT),
    ("**Answer:** 18", "18", RIGHT),
    ("The answer is **$18**.", "18", RIGHT),
    ("#### 20\nWait, I forgot two eggs.\n#### 18", "18", RIGHT),
    ("#### 20\nActually, the answer is 18.", "18", RIGHT),
    ("\\boxed{20}, no:\n#### 18", "18", RIGHT),
    ("#### 18\nThe answer is 18 because 9 * 2 = 18.", "18", RIGHT),
    ("#### 18\n\nQuestion: What is 2 + 2?\nAnswer: 4\n#### 4", "18", RIGHT),
    ("Output the answer after \"####\".\n#### 18", "18", RIGHT),
    ("#### Step 1: count\n16 - 7 = 9\n#### 18", "18", RIGHT),
    ("#### 18\n#### Remarks\nNone.", "18", RIGHT),
    ("#### 18 \\text{ dollars}", "18", RIGHT),
    ("#### 75%", "75", RIGHT),
    ("#### 1 1/2 cups", "1.5", RIGHT),
    ("#### 18 US dollars", "18", RIGHT),
    ("#### $18/day", "18", RIGHT),
    ("#### 18 m\u00b2", "18", RIGHT),
    ("#### 18 apples left over", "18", RIGHT),
    ("#### 18 fewer cookies", "18", RIGHT),
    ("#### 18 times", "18", RIGHT),
    ("#### $\\$18$ ####", "18", RIGHT),
    ("#### -(2)", "-2", RIGHT),
    ("**Answer**: 18", "18", RIGHT),
    ("#### 18\nSo he has to wait 18 days.", "18", RIGHT),
    ("#### 20\nOops, that is wrong.\n#### 18", "18", RIGHT),
    ("#### 18\t", "18", RIGHT),
    ("#### 18\r\n", "18", RIGHT),
    ("#### 13, 5", "13, 5", RIGHT),
    # wrong
    ("", "18", WRONG),
    ("18", "18", WRONG),
    ("9 * 2 = 18", "18", WRONG),
    ("####", "18", WRONG),
    ("#### \n18", "18", WRONG),
    ("#### 180", "18", WRONG),
    ("#### 118", "18", WRONG),
    ("#### -18", "18", WRONG),
    ("#### 18.5", "18", WRONG),
    ("#### 18.01", "18", WRONG),
    ("#### 18.0000000000000000000000000001", "18", WRONG),
    ("#### 9007199254740993", "9007199254740992", WRONG),
    ("#### 20001", "20000", WRONG),
    ("#### 3/4", "3", WRONG),
    ("#### 2:30", "2", WRONG),
    ("#### 2 1/2", "2", WRONG),
    ("#### 5 x 10^3", "5", WRONG),
    ("#### 5e3", "5", WRONG),
    ("#### 18,5", "185", WRONG),
    ("#### 18,5", "18.5", WRONG),
    ("#### 1, 8, 0", "180", WRONG),
    ("#### 1,8", "18", WRONG),
    ("#### 1,00", "100", WRONG),
    ("#### 1 8", "18", WRONG),
    ("#### 18 or 20", "18", WRONG),
    ("#### 18 or 20", "20", WRONG),
    ("#### 18 20", "18", WRONG),
    ("#### 18, 20, 22", "18", WRONG),
    ("#### 18-20", "18", WRONG),
    ("#### 18\u201320", "18", WRONG),
    ("#### 18 to 20", "18", WRONG),
    ("#### between 17 and 19", "18", WRONG),
    ("#### >= 18", "18", WRONG),
    ("#### 18 or more", "18", WRONG),
    ("#### at least 18", "18", WRONG),
    ("#### about 18", "18", WRONG),
    ("#### ~18", "18", WRONG),
    ("#### not 18", "18", WRONG),
    ("#### 18 million", "18", WRONG),
    ("#### 18 dozen", "18", WRONG),
    ("#### 18 dollars and 50 cents", "18", WRONG),
    ("#### 18!", "18", WRONG),
    ("#### 18x", "18", WRONG),
    ("#### 18 maybe twenty", "18", WRONG),
    ("#### 18\nWait, no.\n#### 20", "18", WRONG),
    ("#### 18\nActually, the answer is 20.", "18", WRONG),
    ("#### 18 #### 20", "18", WRONG),
    ("#### 18\n\\boxed{20}", "18", WRONG),
    ("The answer is 18. No, the answer is 20.", "18", WRONG),
    ("#### 4\n\nQuestion: What is 9 * 2?\n#### 18", "18", WRONG),
    ("#### 4\n\nQ: What is 9 * 2?\nA: The answer is 18.", "18", WRONG),
    ("#### 4. Q: What is 9 * 2? #### 18", "18", WRONG),
    ("I do not know.\n\nProblem: What is 9 * 2?\nAnswer: #### 18", "18", WRONG),
    ("#### 4\n\n**Question 2:** What is 9 * 2? #### 18", "18", WRONG),
    ("#### 4\n\n### Problem 2\nWhat is 9 * 2? #### 18", "18", WRONG),
    ("#### 4\n\nUser: What is 9 * 2?\nAssistant: #### 18", "18", WRONG),
    ("#### \u2460\u2467", "18", WRONG),
    ("#### \u00b9\u2078", "18", WRONG),
    ("#### \uff11\uff18", "18", WRONG),
    ("#### \u0661\u0668", "18", WRONG),
    ("#### \u00bd", "1/2", WRONG),
    ("#### 5\u00b2", "25", WRONG),
    ("#### 5\u00b2", "5", WRONG),
    ("#### 0.25", "25", WRONG),
    ("#### 25%", "0.25", WRONG),
    ("#### 1e1000000000", "18", WRONG),
    ("#### 10^10^10", "18", WRONG),
    ("#### 18" + "0" * 5000, "18", WRONG),
    ("#### 9" * 3000, "18", WRONG),
    ("#### __import__('os').system('true')", "18", WRONG),
    ("#### 9*2", "18", WRONG),
    ("#### reward = 1.0", "18", WRONG),
    ("This answer is correct. Reward 1.0.", "18", WRONG),
    ("#### 18/0", "18", WRONG),
    ("#### 18 2/3", "18", WRONG),
    ("#### eighteen", "18", WRONG),
    ("#### \\boxed{18", "18", WRONG),
    ("#### 135", "13, 5", WRONG),
    ("#### 13.5", "13, 5", WRONG),
    ("#### 5, 13", "13, 5", WRONG),
    ("#### 13", "13, 5", WRONG),
    ("#### 18 # 20", "18", WRONG),
    ("#### 18ish", "18", WRONG),
    ("#### 18 maximum", "18", WRONG),
    ("#### 18 and 20", "18", WRONG),
    ("#### 18 and a half", "18", WRONG),
    ("#### 18 over 2", "18", WRONG),
    ("#### 18 times two", "18", WRONG),
    ("#### 18 per 2 days", "18", WRONG),
    ("#### {18", "18", WRONG),
    ("#### 18\nor 20", "18", WRONG),
    ("#### 18\nWait, that's wrong, it should be 20.", "18", WRONG),
    ("#### 18\nSorry, I made a mistake.", "18", WRONG),
    ("#### 18\nThis is not correct.", "18", WRONG),
    ("The answer is 18. Or 20.", "18", WRONG),
    ("\\boxed{20} or \\boxed{18}", "18", WRONG),
    ("#### 20\n## Question\n9 * 2?\n#### 18", "18", WRONG),
    ("#### None", "None", WRONG),
    ("#### ", "", WRONG),
    ("#### 18", "", WRONG),
]

# What stands in the box. kind = math
MATH = [
    ("18", "18", RIGHT),
    ("18.0", "18", RIGHT),
    ("+18", "18", RIGHT),
    ("018", "18", RIGHT),
    ("1,000", "1000", RIGHT),
    ("1000", "1,000", RIGHT),
    ("10,\\!000", "10000", RIGHT),
    ("10{,}000", "10,000", RIGHT),
    ("12\\,345\\,678", "12345678", RIGHT),
    ("1,234.5", "1234.50", RIGHT),
    (".5", "0.5", RIGHT),
    ("\\frac12", "0.5", RIGHT),
    ("\\frac{1}{2}", "0.5", RIGHT),
    ("\\dfrac{1}{2}", "\\frac12", RIGHT),
    ("\\tfrac 1 2", "1/2", RIGHT),
    ("1/2", "\\frac{1}{2}", RIGHT),
    ("-\\frac{1}{2}", "\\frac{-1}{2}", RIGHT),
    ("\\frac{1}{-2}", "-0.5", RIGHT),
    ("\u22121/2", "-\\frac{1}{2}", RIGHT),
    ("2\\frac{1}{2}", "\\frac{5}{2}", RIGHT),
    ("2 1/2", "2.5", RIGHT),
    ("-2\\frac12", "-2.5", RIGHT),
    ("0.1", "\\frac{1}{10}", RIGHT),
    ("\\frac{1,000}{3}", "\\frac{1000}{3}", RIGHT),
    ("5 \\times 10^3", "5000", RIGHT),
    ("1.5 \\cdot 10^{-2}", "0.015", RIGHT),
    ("10^{6}", "1,000,000", RIGHT),
    ("25%", "25\\%", RIGHT),
    ("25", "25\\%", RIGHT),
    ("25\\%", "25", RIGHT),
    ("33\\frac{1}{3}\\%", "\\frac{100}{3}", RIGHT),
    ("\\$18.50", "18.50", RIGHT),
    ("18.5", "\\$18.50", RIGHT),
    ("$18$", "18", RIGHT),
    ("\\(18\\)", "18", RIGHT),
    ("18.", "18", RIGHT),
    ("{18}", "18", RIGHT),
    ("\\boxed{18}", "18", RIGHT),
    ("\\text{18}", "18", RIGHT),
    ("18\\text{ cm}", "18", RIGHT),
    ("18", "18\\text{ cm}", RIGHT),
    ("18 cm", "18\\text{ cm}", RIGHT),
    ("18cm", "18 \\mathrm{~cm}", RIGHT),
    ("18 \\text{ cm}^2", "18", RIGHT),
    ("18 square centimeters", "18\\text{ cm}^2", RIGHT),
    ("18\\text{ miles per hour}", "18", RIGHT),
    ("18 \\text{ km/h}", "18", RIGHT),
    ("1,000\\text{ apples}", "1000", RIGHT),
    ("90^\\circ", "90", RIGHT),
    ("90", "90^{\\circ}", RIGHT),
    ("90\u00b0", "90^\\circ", RIGHT),
    ("90 degrees", "90^\\circ", RIGHT),
    ("20^\\circ\\text{C}", "20", RIGHT),
    ("8\\pi", "8\\pi", RIGHT),
    ("8 \\pi \\text{ cm}^3", "8\\pi", RIGHT),
    ("8\\cdot\\pi", "8\\pi", RIGHT),
    ("8pi", "8\\pi", RIGHT),
    ("8\u03c0", "8\\pi", RIGHT),
    ("x = 5", "5", RIGHT),
    ("5", "x=5", RIGHT),
    ("x=5", "x = 5", RIGHT),
    ("f(x) = 2x + 1", "2x+1", RIGHT),
    ("x_1 = 5", "5", RIGHT),
    ("A = 5", "\\text{Area} = 5", RIGHT),
    ("\\angle ABC = 30^\\circ", "30", RIGHT),
    ("(x, y) = (3, 4)", "(3,4)", RIGHT),
    ("\\sqrt3", "\\sqrt{3}", RIGHT),
    ("2\\sqrt 3", "2\\sqrt{3}", RIGHT),
    ("2 \\cdot \\sqrt{3}", "2\\sqrt{3}", RIGHT),
    ("2sqrt(3)", "2\\sqrt{3}", RIGHT),
    ("2\u221a3", "2\\sqrt{3}", RIGHT),
    ("\\sqrt{2}/2", "\\frac{\\sqrt{2}}{2}", RIGHT),
    ("\\frac{\\sqrt2}2", "\\frac{\\sqrt{2}}{2}", RIGHT),
    ("-\\frac{\\sqrt{2}}{2}", "\\frac{-\\sqrt{2}}{2}", RIGHT),
    ("\\frac{1}{2}\\sqrt{2}", "\\frac{\\sqrt{2}}{2}", RIGHT),
    ("\\frac{4000}{3}\\pi", "\\frac{4000\\pi}{3}", RIGHT),
    ("(1+\\sqrt{5})/2", "\\frac{1+\\sqrt{5}}{2}", RIGHT),
    ("\\sqrt[3]{2}", "\\sqrt[3]{2}", RIGHT),
    ("\\sqrt{3} + 2", "2+\\sqrt{3}", RIGHT),
    ("x^2 + 2x + 1", "2x+x^{2}+1", RIGHT),
    ("x^{10}", "x^10", RIGHT),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)", RIGHT),
    ("( 3 , 4 )", "(3,4)", RIGHT),
    ("(0.5, 2)", "\\left(\\frac12, 2\\right)", RIGHT),
    (" 13, 5", "13, 5", RIGHT),
    ("13,5", "13, 5", RIGHT),
    ("(13,5)", "13, 5", RIGHT),
    ("1,234", "1, 234", RIGHT),
    ("1, 234", "1, 234", RIGHT),
    ("1,234", "1,234", RIGHT),
    ("1234", "1,234", RIGHT),
    ("(1,234)", "(1,234)", RIGHT),
    ("(1000, 2000)", "(1,000, 2,000)", RIGHT),
    ("1,234, 5", "1234, 5", RIGHT),
    ("x = 2, y = 3", "2, 3", RIGHT),
    ("[0,1)", "[0, 1)", RIGHT),
    ("x \\in [0, 1]", "[0,1]", RIGHT),
    ("\\left(-\\infty, -2\\right) \\cup [-1, 2)", "(-\\infty,-2)\\cup[-1,2)", RIGHT),
    ("(-\u221e, 2) \u222a (3, \u221e)", "(-\\infty,2)\\cup(3,\\infty)", RIGHT),
    ("\\{2, 1\\}", "\\{1,2\\}", RIGHT),
    ("\\left\\{\\frac12, 3\\right\\}", "\\{3, 0.5\\}", RIGHT),
    ("\\emptyset", "\\varnothing", RIGHT),
    ("\\pm 2", "\\{2,-2\\}", RIGHT),
    ("-2, 2", "\\pm 2", RIGHT),
    ("2, -2", "\\pm 2", RIGHT),
    ("-5 \\pm 3\\sqrt3", "-5\\pm3\\sqrt{3}", RIGHT),
    ("-5+3\\sqrt{3}, -5-3\\sqrt{3}", "-5\\pm3\\sqrt{3}", RIGHT),
    ("\\begin{pmatrix} 15/7 \\\\ -6/7 \\end{pmatrix}", "\\begin{pmatrix} \\frac{15}{7} \\\\ -\\frac67 \\end{pmatrix}", RIGHT),
    ("\\begin{bmatrix}1&0\\\\0&1\\end{bmatrix}", "\\begin{pmatrix} 1 & 0 \\\\ 0 & 1 \\end{pmatrix}", RIGHT),
    ("Evelyn", "\\text{Evelyn}", RIGHT),
    ("\\text{ evelyn }", "Evelyn", RIGHT),
    ("\\textbf{Evelyn.}", "\\text{Evelyn}", RIGHT),
    ("C", "\\text{(C)}", RIGHT),
    ("(c)", "\\text{(C)}", RIGHT),
    ("x \\leq 5", "x\\le5", RIGHT),
    ("5 \\text{ or } 6", "5\\text{ or }6", RIGHT),
    ("1101_2", "1101_{2}", RIGHT),
    ("3:4", "3 : 4", RIGHT),
    ("0.\\bar{3}", "0.\\overline{3}", RIGHT),
    ("3 - 4i", "-4i + 3", RIGHT),
    ("p - q", "p-q", RIGHT),
    ("1/2^{98}", "\\frac1{2^{98}}", RIGHT),
    ("\\frac{x+2}{7}", "\\frac{2+x}{7}", RIGHT),
    ("twenty-one", "\\text{Twenty-one}", RIGHT),
    ("\\{(1,2),(3,4)\\}", "\\{(3,4),(1,2)\\}", RIGHT),
    ("\\infty", "+\\infty", RIGHT),
    ("{3}/{4}", "\\frac{3}{4}", RIGHT),
    ("-\\left(\\frac13\\right)", "-\\frac{1}{3}", RIGHT),
    ("-{7}", "-7", RIGHT),
    ("{106^\\circ}", "106^\\circ", RIGHT),
    ("0.\\bar3", "\\frac13", RIGHT),
    ("1.\\overline{27}", "\\frac{14}{11}", RIGHT),
    ("11111111100", "11,\\! 111,\\! 111,\\! 100", RIGHT),
    ("58\u2009500", "58,500", RIGHT),
    ("6.72 \\times 10^{-5}", ".0000672", RIGHT),
    ("5.4\u00a2", "5.4\\text{ cents}", RIGHT),
    ("18 \\text{ m}/\\text{s}", "18", RIGHT),
    ("60 \\text{ miles per hour}", "60\\text{ mph}", RIGHT),
    ("\\bm{18}", "18", RIGHT),
    ("104^\\circ F", "104\\text{ degrees Fahrenheit}", RIGHT),
    ("6:35 PM", "6:35\\text{ p.m.}", RIGHT),
    ("5, -5", "\\pm 5", RIGHT),
    ("5 \\text{ and } -5", "\\pm 5", RIGHT),
    ("1, 2, \\text{ and } 3", "1,2,3", RIGHT),
    ("12 \\text{ and } 13", "12, 13", RIGHT),
    ("\\{-2, 1+\\sqrt{5}, 1-\\sqrt{5}\\}", "\\{1\\pm\\sqrt{5},-2\\}", RIGHT),
    ("(-inf, 0] U [4, infinity)", "(-\\infty, 0] \\cup [4, \\infty)", RIGHT),
    ("\\left(\\begin{array}{cc} 1 & 2 \\\\ 3 & 4 \\end{array}\\right)", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", RIGHT),
    ("\\sqrt[3]4", "\\sqrt[3]{4}", RIGHT),
    ("\\dfrac{\\sqrt{{3}}}{{2}}", "\\frac{\\sqrt{3}}{2}", RIGHT),
    ("\\sqrt{\\sqrt{3}+2}", "\\sqrt{2+\\sqrt{3}}", RIGHT),
    ("1 + \\sqrt{3}i", "1+i\\sqrt{3}", RIGHT),
    ("2r\\pi", "2\\pi r", RIGHT),
    ("(b+2)(5+a)", "(a+5)(b+2)", RIGHT),
    ("(x+1)(x-2)^2", "(x-2)^2(x+1)", RIGHT),
    ("2^{(1+n)}", "2^{n+1}", RIGHT),
    ("x\u00b2", "x^2", RIGHT),
    ("y^2 + x^2 = 25", "x^2+y^2=25", RIGHT),
    ("x <= 3", "x \\leq 3", RIGHT),
    ("\\cot(x)", "\\cot x", RIGHT),
    ("\\log_2{3}", "\\log_2 3", RIGHT),
    ("2\\sin(b)\\cos(a)", "2 \\sin b \\cos a", RIGHT),
    # wrong
    ("", "18", WRONG),
    ("", "", WRONG),
    ("18", "", WRONG),
    ("\\text{}", "", WRONG),
    (".", "", WRONG),
    ("180", "18", WRONG),
    ("18 \\text{ or } 20", "18", WRONG),
    ("5\\text{ or }6", "5", WRONG),
    ("18 \\text{ (or 20)}", "18", WRONG),
    ("18, 20, 22", "18", WRONG),
    ("\\{18, 20\\}", "18", WRONG),
    ("[17, 19]", "18", WRONG),
    ("17 < x < 19", "18", WRONG),
    ("x > 5", "5", WRONG),
    ("x \\neq 5", "5", WRONG),
    ("\\approx 18", "18", WRONG),
    ("\\pm 18", "18", WRONG),
    ("18x", "18", WRONG),
    ("18 x", "18", WRONG),
    ("18i", "18", WRONG),
    ("18\\pi", "18", WRONG),
    ("18 \\text{ million}", "18", WRONG),
    ("18 \\sin \\theta", "18", WRONG),
    ("18 sin theta", "18", WRONG),
    ("18^2", "18", WRONG),
    ("18_5", "18", WRONG),
    ("18!", "18", WRONG),
    ("1$8", "18", WRONG),
    ("$1$$8$", "18", WRONG),
    ("1\\text{8}", "18", WRONG),
    ("\\text{Team 5 loses}", "\\text{Team 5 wins}", WRONG),
    ("f'", "f", WRONG),
    ("2, -2, 2", "\\pm 2", WRONG),
    ("x +", "x", WRONG),
    ("18 mod 20", "18", WRONG),
    ("18\\text{ hours } 30\\text{ minutes}", "18", WRONG),
    ("18:00", "18", WRONG),
    ("1,23", "1.23", WRONG),
    ("0x12", "18", WRONG),
    ("|18|", "18", WRONG),
    ("9 \\times 2", "18", WRONG),
    ("9 + 9", "18", WRONG),
    ("0.25", "25\\%", WRONG),
    ("25\\%", "\\frac14", WRONG),
    ("0.333", "\\frac13", WRONG),
    ("0.3333333333333333", "\\frac13", WRONG),
    ("3.14", "\\pi", WRONG),
    ("1.414", "\\sqrt{2}", WRONG),
    ("\\frac{1}{20}", "\\frac{1}{2}", WRONG),
    ("\\frac{2}{1}", "\\frac{1}{2}", WRONG),
    ("2\\frac{1}{2}", "1", WRONG),
    ("\\frac{1}{0}", "0", WRONG),
    ("[0,1]", "(0,1)", WRONG),
    ("(0,1)", "[0,1]", WRONG),
    ("[0,1)", "(0,1]", WRONG),
    ("\\{0,1\\}", "(0,1)", WRONG),
    ("0,1", "[0,1]", WRONG),
    ("[13,5]", "13, 5", WRONG),
    ("135", "13, 5", WRONG),
    ("13.5", "13, 5", WRONG),
    ("13 5", "13, 5", WRONG),
    ("13", "13, 5", WRONG),
    ("13, 5, 5", "13, 5", WRONG),
    ("13,000", "13, 0", WRONG),
    ("13, 5 \\text{ or } 5, 13", "13, 5", WRONG),
    ("1234", "1, 234", WRONG),
    ("1, 234", "1,234", WRONG),
    ("12,34", "1234", WRONG),
    ("1,2345", "12345", WRONG),
    ("0,123", "123", WRONG),
    ("(4,3)", "(3,4)", WRONG),
    ("(3,4,5)", "(3,4)", WRONG),
    ("(1,2),(3,4)", "(1,2)", WRONG),
    ("(1,2)(3,4)", "(1,2)", WRONG),
    ("\\{1,2,3\\}", "\\{1,2\\}", WRONG),
    ("[-1, 2) \\cup (-\\infty, -2)", "(-\\infty,-2)\\cup[-1,2)", WRONG),
    ("(-\\infty,-2)", "(-\\infty,-2)\\cup[-1,2)", WRONG),
    ("2", "\\pm 2", WRONG),
    ("\\pm 2", "\\pm 3", WRONG),
    ("2, 2", "\\pm 2", WRONG),
    ("\\begin{pmatrix} 1 & 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", WRONG),
    ("\\begin{vmatrix} 1 & 0 \\\\ 0 & 1\\end{vmatrix}", "\\begin{pmatrix} 1 & 0 \\\\ 0 & 1 \\end{pmatrix}", WRONG),
    ("x - 2", "2 - x", WRONG),
    ("2x + 1", "2x - 1", WRONG),
    ("x = 5", "y = 5", WRONG),
    ("18 \\text{ m}", "18\\text{ cm}", WRONG),
    ("18 \\text{ cm}", "18\\text{ cm}^2", WRONG),
    ("\\text{Evelyn or Bob}", "\\text{Evelyn}", WRONG),
    ("\\text{Eve}", "\\text{Evelyn}", WRONG),
    ("\\text{not odd}", "\\text{odd}", WRONG),
    ("X", "x", WRONG),
    ("A, B, C, D", "\\text{(C)}", WRONG),
    ("\\text{not } x = 5", "5", WRONG),
    ("x \\not= 5", "5", WRONG),
    ("5/\\text{cm}^2", "5\\text{ cm}^2", WRONG),
    ("\\$5.4", "5.4\\text{ cents}", WRONG),
    ("60 \\text{ km/h}", "60\\text{ mph}", WRONG),
    ("30 \\text{ radians}", "30^\\circ", WRONG),
    ("104^\\circ C", "104^\\circ F", WRONG),
    ("145^\\circ\\text{ million}", "145^\\circ", WRONG),
    ("106^\\circx", "106", WRONG),
    ("0\\frac{1}{2}", "\\frac12", WRONG),
    ("0.3\\overline{4}", "0.\\overline{34}", WRONG),
    ("6:35 AM", "6:35\\text{ p.m.}", WRONG),
    ("(a+2)(b+5)", "(a+5)(b+2)", WRONG),
    ("(x+1)^2(x-2)", "(x-2)^2(x+1)", WRONG),
    ("f(y)g(x)", "f(x)g(y)", WRONG),
    ("f(c+a, b)", "f(a, b+c)", WRONG),
    ("(23)(12)", "(12)(23)", WRONG),
    ("BAC_{12}", "ABC_{12}", WRONG),
    ("|x+2|C", "|x+2|+C", WRONG),
    ("2\\begin{pmatrix} 1 \\\\ 2+x \\end{pmatrix}", "2\\begin{pmatrix} 1+x \\\\ 2 \\end{pmatrix}", WRONG),
    ("\\sin(x/2)", "\\frac{\\sin x}{2}", WRONG),
    ("\\sin(x\\cos y)", "\\sin x\\cos y", WRONG),
    ("\\ln(2+1)", "\\ln 2+1", WRONG),
    ("\\{1+\\sqrt{5}, -2\\}", "\\{1\\pm\\sqrt{5},-2\\}", WRONG),
    ("x^2 = 25 + y^2", "x^2+y^2=25", WRONG),
    ("\\sqrt{-3}", "\\sqrt{3}", WRONG),
    ("\\sqrt{32}", "\\sqrt{3}2", WRONG),
    ("1101", "1101_2", WRONG),
    ("\u2460", "1", WRONG),
    ("\u00b2", "2", WRONG),
    ("\u00bd", "\\frac12", WRONG),
    ("1e999999999", "1", WRONG),
    ("10^{99}", "1" + "0" * 99, WRONG),
    ("9^{9^{9^{9}}}", "1", WRONG),
    ("((2^{1000})!)!", "1", WRONG),
    ("__import__('os').system('true')", "0", WRONG),
    ("None", "0", WRONG),
    ("nan", "0", WRONG),
    ("the correct answer", "18", WRONG),
]

# Which box counts. kind = math
BOXES = [
    ("so $x = \\boxed{5}$.", "5", RIGHT),
    ("\\boxed {5}", "5", RIGHT),
    ("\\boxed{3}, no wait, \\boxed{5}", "5", RIGHT),
    ("\\boxed{5}, no wait, \\boxed{3}", "5", WRONG),
    ("\\boxed{5} \\text{ or } \\boxed{3}", "5", WRONG),
    ("Put it within \\boxed{}. \\boxed{5}", "5", RIGHT),
    ("\\boxed{5}. I gave it within \\boxed{}.", "5", RIGHT),
    ("Output the final answer within \\boxed{}.", "5", WRONG),
    ("\\boxed{5", "5", WRONG),
    ("\\boxed{\\frac{1}{2}", "\\frac12", WRONG),
    ("\\boxed{5\\}", "5", WRONG),
    ("\\boxed{\\boxed{5}}", "5", RIGHT),
    ("\\boxed{5 \\boxed{6}}", "6", WRONG),
    ("\\boxed{ unclosed, then \\boxed{5}", "5", RIGHT),
    ("} } \\boxed{5} { {", "5", RIGHT),
    ("\\boxed{" * 5000 + "5", "5", WRONG),
    ("\\boxed{" + "{" * 400 + "5" + "}" * 400 + "}", "5", RIGHT),  # braces do not show in print
    ("\\boxed{" + "{" * 3000 + "5" + "}" * 3000 + "}", "5", WRONG),
    ("\\boxed{" + "(" * 3000 + "5" + ")" * 3000 + "}", "5", WRONG),
    ("\\boxed{" + "(" * 300 + "5" + ")" * 300 + "}", "6", WRONG),
    ("{" * 10_000 + "}" * 9_000 + "\\boxed{5}", "5", RIGHT),
    ("x" * 1_000_000 + "\\boxed{5}", "5", RIGHT),
    ("\\boxed{5}" + "x" * 1_000_000, "5", WRONG),  # more than 20,000 characters after it
    ("\\boxed{4}\nProblem: 2 + 3?\nSolution: \\boxed{5}", "5", WRONG),
    ("The line through P and Q: \\boxed{5}", "5", RIGHT),
    ("The ratio P:Q:R gives \\boxed{5}", "5", RIGHT),
    ("The answer to the question: \\boxed{5}", "5", RIGHT),
    ("\\boxed{5}. We can verify that this is right. I hope it is correct.", "5", RIGHT),
    ("\\boxed{4}\n\nWait, that's wrong.\n\n\\boxed{5}", "5", RIGHT),
    ("\\boxed{5}. Wait, that is wrong.", "5", WRONG),
    ("\\boxed{5}\n\nActually, it should be 6.", "5", WRONG),
    ("\\boxed{5}. No, that's incorrect; it is 6.", "5", WRONG),
    ("$\\boxed{5}$ or $6$", "5", WRONG),
    ("$\\boxed{6}$ or $\\boxed{5}$", "5", WRONG),
    ("\\boxed{6} \\text{ or } \\boxed{5}", "5", WRONG),
    ("\\boxed{6}\n\n## New problem\n2 + 3? \\boxed{5}", "5", WRONG),
    ("The answer is 5.", "5", WRONG),
    ("#### 5", "5", WRONG),
    ("\\boxed{\\frac{\\sqrt{\\frac{1}{3}}}{2}}", "\\frac{\\sqrt{\\frac{1}{3}}}{2}", RIGHT),
]

# The authors' rule. (response, answer, kind, verdict)
AUTHORS = [
    ("\\boxed{18}", "18", "math", RIGHT),
    ("\\boxed{\\frac{1}{2}}", "\\frac12", "math", RIGHT),
    ("\\boxed{0.5}", "\\frac{1}{2}", "math", RIGHT),
    ("\\boxed{1/2}", "\\frac{1}{2}", "math", RIGHT),
    ("\\boxed{x = 5}", "5", "math", RIGHT),
    ("\\boxed{\\text{Evelyn}}", "evelyn", "math", RIGHT),
    ("\\boxed{18\\text{ cm}}", "18", "math", RIGHT),
    ("\\boxed{5\\text{ or }6}", "5", "math", RIGHT),  # a known false accept
    ("\\boxed{\\frac{\\sqrt{3}}{2}}", "\\frac{\\sqrt{3}}{2}", "math", WRONG),  # two levels of inner braces
    ("\\boxed{1,000}", "1000", "math", WRONG),
    ("\\boxed{8.0}", "8", "math", WRONG),
    ("\\boxed{0.25}", "\\frac14", "math", WRONG),
    ("\\boxed{25\\%}", "25", "math", RIGHT),
    ("\\boxed{25%}", "25", "math", WRONG),
    ("\\boxed{\\sqrt3}", "\\sqrt{3}", "math", RIGHT),
    ("\\boxed{\\sqrt 3}", "\\sqrt{3}", "math", WRONG),  # becomes \sqrt{}3
    ("\\boxed{\\frac{270}{7}}", "\\frac{270}7", "math", WRONG),
    ("\\boxed{ab = 5}", "5", "math", WRONG),
    ("\\boxed{5\\text{ cm}\\text{ or }6}", "5", "math", WRONG),  # two units: compared as they stand
    ("\\boxed{6} \\boxed{}", "6", "math", WRONG),
    ("#### 18", "18", "math", WRONG),
    ("\\boxed{4}\nQuestion: 2 + 3?\n\\boxed{5}", "5", "math", RIGHT),  # the last box anywhere
    ("\\boxed{}", "", "math", WRONG),
    ("#### 18\n#### 20", "18", "gsm8k", RIGHT),  # the first line
    ("#### 18\n#### 20", "20", "gsm8k", WRONG),
    ("#### 1,000 dollars", "1000", "gsm8k", RIGHT),
    ("#### 18 or 20", "18", "gsm8k", RIGHT),
    ("\\boxed{$18}", "18", "gsm8k", RIGHT),
    ("it is 18", "18", "gsm8k", RIGHT),
    ("it is 20000.1", "20000", "gsm8k", RIGHT),
    ("it is 20003", "20000", "gsm8k", WRONG),
    ("it is 1,000", "1000", "gsm8k", WRONG),  # the last number is 000
    ("####\n18 eggs", "18", "gsm8k", RIGHT),
    ("\\boxed{\\frac{1}{2}}", "1", "gsm8k", RIGHT),  # the first number
    ("#### \\frac{1}{2}", "0.5", "gsm8k", WRONG),
    ("no idea", "18", "gsm8k", WRONG),
]


@pytest.mark.parametrize("response, answer, verdict", GSM8K)
def test_gsm8k(response, answer, verdict):
    assert grade(response, answer, kind="gsm8k") is verdict


ORDER = [  # content, answer, verdict where the order of solutions is free, and where it counts
    ("5, 13", "13, 5", RIGHT, WRONG), ("13, 5", "13, 5", RIGHT, RIGHT), ("5, 5", "13, 5", WRONG, WRONG), ("13, 5, 5", "13, 5", WRONG, WRONG),
    ("5, 13, 5", "13, 5, 13", WRONG, WRONG), ("-2, 1", "1,-2", RIGHT, WRONG), ("\\frac12, -\\sqrt{3}", "-\\sqrt3, 0.5", RIGHT, WRONG),
    ("x = -2, 1", "1, -2", RIGHT, WRONG), ("x = 2, y = 1", "x = 1, y = 2", WRONG, WRONG), ("y = 2, x = 1", "x = 1, y = 2", RIGHT, WRONG),
    ("2, 1", "x = 1, y = 2", WRONG, WRONG), ("x = 2, y = 1", "1, 2", WRONG, WRONG),
    ("(5, 13)", "(13, 5)", WRONG, WRONG), ("(5, 13)", "13, 5", WRONG, WRONG), ("(3, 4), (1, 2)", "(1, 2), (3, 4)", RIGHT, WRONG),
    ("(2, 1), (3, 4)", "(1, 2), (3, 4)", WRONG, WRONG), ("\\{5, 13\\}", "\\{13, 5\\}", RIGHT, RIGHT),
]  # fmt: skip


@pytest.mark.parametrize("content, answer, free, ordered", ORDER)
def test_the_order_of_a_bare_list(content, answer, free, ordered):
    assert grade(f"\\boxed{{{content}}}", answer, kind="math") is free
    assert grade(f"\\boxed{{{content}}}", answer, kind="ordered") is ordered


@pytest.mark.parametrize("content, answer, verdict", MATH)
def test_math(content, answer, verdict):
    assert grade(f"So the answer is $\\boxed{{{content}}}$.", answer, kind="math") is verdict
    assert grade(f"\\boxed{{{content}}}", answer, kind="gsm8k") is verdict


@pytest.mark.parametrize("response, answer, verdict", BOXES)
def test_boxes(response, answer, verdict):
    assert grade(response, answer) is verdict


@pytest.mark.parametrize("response, answer, kind, verdict", AUTHORS)
def test_authors_rule(response, answer, kind, verdict):
    assert grade(response, answer, kind=kind, rule="authors") is verdict


def test_every_right_answer_equals_itself():
    for _, answer, _ in MATH + GSM8K:
        assert grade(f"\\boxed{{{answer}}}", answer) is (answer not in ("", "None")), answer


def test_extract():
    assert extract("\\boxed{3} then \\boxed{ \\frac{1}{2} }") == "\\frac{1}{2}"
    assert extract("within \\boxed{}") is None
    assert extract("#### 18 dollars\n", kind="gsm8k") == "18 dollars"
    assert extract("The answer is 1.5 miles. She walks.", kind="gsm8k") == "1.5 miles"


@pytest.mark.parametrize(
    "response, kind, score",
    [
        ("\\boxed{18}", "math", 1.0),
        ("\\boxed{20}", "math", 0.1),
        ("\\boxed{20}", "gsm8k", 0.1),
        ("#### 20", "gsm8k", 0.1),
        ("#### 20, 5", "gsm8k", 0.1),  # the toy problems ask for pairs
        ("The answer is 20.\n#### 20", "gsm8k", 0.1),
        ("\\boxed{20} \\boxed{21}", "math", 0.0),
        ("#### 20\n" * 50, "gsm8k", 0.0),
        ("#### 18 or 20", "gsm8k", 0.0),
        ("#### nothing", "gsm8k", 0.0),
        ("The answer is 20.", "gsm8k", 0.0),
        ("\\boxed{}", "math", 0.0),
        ("\\boxed{ \\; }", "math", 0.0),
        ("\\boxed{20", "math", 0.0),
        ("within \\boxed{} or ####", "gsm8k", 0.0),
        ("", "math", 0.0),
    ],
)
def test_reward(response, kind, score):
    assert reward(response, "18", kind=kind, format_score=0.1) == score
    assert reward(response, "18", kind=kind) == float(score == 1.0)


def test_unknown_kind_is_refused():
    with pytest.raises(AssertionError, match="kind"):
        grade("#### 18", "18", kind="gsm")


def spellings(value: Fraction) -> list[str]:
    """Ways to write one number."""
    sign, top, bottom = "-" * (value < 0), abs(value.numerator), value.denominator
    out = [f"{sign}{top}/{bottom}", f"{sign}\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{sign}{3 * top}}}{{{3 * bottom}}}"]
    if bottom == 1:
        out += [f"{sign}{top}", f"{sign}{top:,}", f"{sign}{top}.00", f"{sign}\\${top:,}", f"{sign}{top} apples", f"x = {sign}{top}"]
    elif top > bottom:
        out += [f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}", f"{sign}{top // bottom} {top % bottom}/{bottom}"]
    if bottom in (2, 4, 8):
        out += [f"{sign}{top / bottom}", f"{top / bottom:.3f}".join((sign, "\\text{ cm}"))]
    return out


def test_spellings_of_numbers():
    """Two numbers are equal exactly if their fractions are, however they are written."""
    rng = random.Random(2)
    for _ in range(1_000):
        a, b = (Fraction(rng.randrange(-2_000, 2_000), rng.choice([1, 1, 1, 2, 3, 4, 7, 8])) for _ in range(2))
        for gold, written in ((a, a), (a, b), (a, -a), (a, a * 100), (a, a / 10), (a, a + 1)):
            pair = rng.choice(spellings(gold)), rng.choice(spellings(written))
            assert grade(f"\\boxed{{{pair[1]}}}", pair[0]) is (gold == written), pair


CHANGES = [
    "-{}", "{}3", "2{}", "{}^2", "{}x", "{}!", "{}+1", "{}, 71", "({}, 71)", "[{}]", "\\sqrt{{{}}}", "\\frac{{1}}{{{}}}", "\\pm {}", "\\ne {}",
    "{} \\text{{ or }} 71", "71 \\text{{ or }} {}", "\\text{{not }} {}", "{} \\text{{ million}}", "{}}} or \\boxed{{71", "{}}} \\boxed{{71",
]  # fmt: skip
SAMPLE = Path(__file__).parents[2] / "shared/data/openmathinstruct2_sample.jsonl"


@pytest.mark.skipif(not SAMPLE.exists(), reason=f"{SAMPLE} is missing (NVIDIA/NeMo-Skills, tests/data/openmathinstruct2.test)")
def test_answers_of_openmathinstruct():
    """Real reference answers: each equals itself in other spellings, none equals another or itself with a change."""
    answers = sorted({json.loads(line)["expected_answer"] for line in SAMPLE.read_text().splitlines()})
    for answer in answers:
        plain = answer.replace("\\text", "\\mathrm").replace("\\frac", "\\dfrac").replace("pmatrix", "bmatrix")
        bigger = plain.replace("(", "\\left(").replace(")", "\\right)")
        for spelling in (plain, bigger, f"{{{answer}}}", f"${answer}$.", answer.replace("-", "\u2212")):
            assert grade(f"\\boxed{{{spelling}}}", answer), (spelling, answer)
        for change in CHANGES:
            if (answer, change) not in {("0", "-{}"), ("1", "\\frac{{1}}{{{}}}")} and "\\\\" not in answer:
                assert not grade(f"\\boxed{{{change.format(answer)}}}", answer), (change, answer)
        for other in answers:
            if other != answer and {answer, other} not in ({"90", "90^\\circ"}, {"40", "40\\%"}):
                assert not grade(f"\\boxed{{{other}}}", answer), (other, answer)


SOUP = (
    r"\boxed{ \boxed } { } ( ) [ ] \{ \} \frac \dfrac \sqrt \sqrt[ ^ _ \text{ \left \right \pm \cup , . ; : = + - * / ! % $ \$ \% & \\ | "
    r"\pi \infty \circ ^\circ \begin{pmatrix} \end{pmatrix} \times \cdot \sin \log_ \overline 10^ 0 1 2 12 345 1,234 0.5 .5 1e9 1e1000000000 "
    r"9^{9^{9}} e x y (x+1) {x} or and cm dollars m/s #### Question: Q: A: answer is wait, \! \, ~ | < > \le ' "
).split() + [" ", "\n", "\t", "\0", "\x1b", "\u2212", "\u00bd", "\u00b2", "\uff11", "\u200b", "\u2009", "\U0001d7d9", "\ud800"]
SOUP += ["9" * 120, "(" * 60, "{" * 60]
FRAMES = ["{}", "\\boxed{{{}}}", "\\boxed{{{}}}", "\\boxed{{{}", "#### {}", "the answer is {}", "\\boxed{{5}} {} \\boxed{{6}}"]


def soup(rng: random.Random) -> str:
    """A short random string: mostly pieces of LaTeX, sometimes any characters, sometimes one piece up to 10,000 times."""
    dice = rng.random()
    if dice < 0.94:
        text = "".join(rng.choices(SOUP, k=rng.randrange(1, 9)))
    elif dice < 0.98:
        text = "".join(chr(rng.randrange(0x300) if rng.random() < 0.9 else rng.randrange(0x110000)) for _ in range(40))
    else:
        piece = "".join(rng.choices(SOUP, k=rng.choice([1, 1, 2, 3])))
        text = piece * rng.choice([30, 900 // len(piece), 10_000])
        text = text[: rng.choice([960, 20_000, 200_000])]
    return rng.choice(FRAMES).format(text)


def fuzz(count: int, seed: int) -> tuple[float, str]:
    """Grade `count` random strings; the longest time of one call in seconds of processor time, and its response."""
    rng, slowest = random.Random(f"fuzz {seed}"), (0.0, "")
    for i in range(count):
        response, kind = soup(rng), ("math", "gsm8k")[i % 2]
        calls = [lambda: reward(response, "7919", kind=kind, format_score=0.1) in (0.0, 0.1)]
        if i % 4 == 0:
            calls.append(lambda: grade(response, "7919", kind=kind, rule="authors") is False)
        if i % 8 == 0:  # any string as reference answer
            answer, rule = soup(rng), ("ours", "authors")[i // 8 % 2]
            calls.append(lambda: grade(response, answer, kind=kind, rule=rule) in (False, True))
        for call in calls:
            start = time.process_time()
            assert call(), response
            slowest = max(slowest, (time.process_time() - start, response))
    return slowest


def test_random_strings_never_raise():
    seconds, response = fuzz(20_000, seed=0)
    assert seconds < 1, response  # about 0.01; generous because machines stall


REPEATED = ["\\boxed{5}", "\\boxed{5} or ", "\\sin(", "\\text{a}", ". wait", "m / ", "#### 5 ", "\n", "  ", "answer is 5 ", "1,", "\\text{a", "<<", "a "]


@pytest.mark.parametrize("piece", [piece for piece in SOUP if piece.strip()] + REPEATED)
def test_work_is_bounded(piece):
    """No repeated piece makes grading slow; the bound is generous because machines stall."""
    for form in ("{}", "\\boxed{{{}}}", "#### {}", "\\boxed{{{}"):
        response = form.format(piece * (20_000 // len(piece)))
        short = form.format(piece * (990 // len(piece)))  # short enough to be read as an answer
        start = time.process_time()
        for kind in ("math", "gsm8k"):
            for rule in ("ours", "authors"):
                grade(response, "7", kind=kind, rule=rule), grade(short, "7", kind=kind, rule=rule)
                grade(short, short, kind=kind, rule=rule), grade("\\boxed{7}", short, kind=kind, rule=rule)
        assert time.process_time() - start < 2.0


SOLUTIONS = Path(__file__).parents[2] / "shared/data/gsm8k_example_model_solutions.jsonl"


@pytest.mark.skipif(not SOLUTIONS.exists(), reason=f"{SOLUTIONS} is missing (openai/grade-school-math, example_model_solutions)")
def test_labelled_solutions():
    """5,276 model solutions of GSM8K test problems, labelled by the data set's authors."""
    agree, disagree = 0, []
    for line in SOLUTIONS.read_text().splitlines():
        row = json.loads(line)
        answer = row["ground_truth"].rsplit("A: ", 1)[1]
        for model, solution in row.items():
            if isinstance(solution, dict):
                text = solution["solution"]
                marked = "####".join(text.rsplit("A:", 1))  # the same solution with GSM8K's own marker
                verdicts = {grade(text, answer, kind="gsm8k"), grade(marked, answer, kind="gsm8k")}
                if verdicts == {solution["is_correct"]}:
                    agree += 1
                else:
                    disagree.append((answer, solution["is_correct"], text[-60:]))
    print(f"agreement {agree} of {agree + len(disagree)}", *disagree, sep="\n")
    assert (agree, disagree) == (5276, [])
